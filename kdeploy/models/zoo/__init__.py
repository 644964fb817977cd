"""The zoo: one family a file. A function marked `@network(...)` is a network, and its name is the zoo's name for it.

Such a function takes `classes`, `channels`, `width` and keyword-only options, and returns a module from
`[B, channels, H, W]` to logits `[B, classes]`. A new family is one new file here and no other edit.
"""
