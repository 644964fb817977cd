"""The kinds of targets, one a file; the catalogue is this folder's listing."""
