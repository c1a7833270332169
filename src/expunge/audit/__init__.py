"""Evidence: lineage, replay, certificates and the log they stand in."""
