"""Starting and stopping machines: what is wanted, what is decided, what is done, what it cost."""
