"""How dumps come in: files -> records (files), records -> drafts (shapes), drafts -> checked fields (fields).

`dialects` is the one table of known producers; `automatic` maps fields by their names where no dialect fits.
A draft is a plain dict {canonical field: raw value} for one sample; nothing here makes a Trace.
"""
