"""Which nodes hold which expert. Pure functions that know no network."""
