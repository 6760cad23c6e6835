"""How often the gates release, and how often they are fooled: the operating characteristic of the whole judgement."""
