"""What tests of several rooms share: a cluster to test against, stock kubectl, and a watch over what a run leaves."""
