"""Every modality is there at test time: where and how they are joined."""
