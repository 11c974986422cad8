"""Many sources: a plan of them all, workers on one machine or many, and records of what is finished."""
