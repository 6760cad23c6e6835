"""What names and figures tell about the columns of a table of candles."""
