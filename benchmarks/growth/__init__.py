"""How cost grows with history: a synthetic history at several sizes, and what everything takes on each."""
