"""The portal: what an end user sees and does about their own connected accounts."""
