"""From disk to Views to Batch: manifests, readers, frozen features, splits, control arms, named sets."""
