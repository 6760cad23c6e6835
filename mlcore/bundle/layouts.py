"""The order of the layers of a network: what its weights do not tell."""

from enum import StrEnum


class Layout(StrEnum):
    """Which comes first after each linear layer. The weights are the same in both, and do not tell."""

    RELU_BEFORE_BN = "relu-before-bn"
    BN_BEFORE_RELU = "bn-before-relu"
