"""The pointer: what the bots must use now, the one function that moves it, the fallback, and the database guards."""
