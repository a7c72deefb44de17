"""Joins the two planes: the control thread drives membership, user threads run operations."""
