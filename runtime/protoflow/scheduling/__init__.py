"""Running a subscription: lanes, workers, waits, outcomes carried out, settlements."""
