"""The pointer: what the bots must use now, the function that moves it, the fallback, and what the database refuses."""
