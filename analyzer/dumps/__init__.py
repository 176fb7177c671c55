"""How dumps come in: what is named -> files (specs), files -> records (files), records -> drafts (shapes), drafts ->
checked fields (fields, value by value: values), fields -> Traces (reading, all files: read).

`recognise` decides how a file is read: `dialects` is the one table of known producers; `automatic` maps fields by the
table of their names (names) where no dialect fits. What traces say about themselves is counted in `survey` as they
pass: `warnings` and `repeats` are the findings, `check` what is printed, `prospects` its part about the next steps.
A draft is a plain dict {canonical field: raw value} for one sample; nothing here makes a Trace.
"""
