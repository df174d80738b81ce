"""Real data sets by name, one file each: where it comes from, checksum, licence, how it becomes Views."""
