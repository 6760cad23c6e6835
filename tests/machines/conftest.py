from tests.machines.world import world

__all__ = ["world"]
