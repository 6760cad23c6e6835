"""Error rates of the candle checks: false alarms over real series, and how often made-up series are found."""
