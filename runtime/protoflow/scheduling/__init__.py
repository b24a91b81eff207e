"""Running a subscription: lanes, workers, waits, outcomes and settlements."""
