"""The programs that the bench compares fsmount with, other than the C models."""
