"""What a bot keeps on disk, written so that a crash leaves a usable folder."""
