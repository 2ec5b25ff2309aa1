"""Training of rerankers: judged pairs -> candidates -> network -> exported model folder.

Needs the extra `training` (torch, onnx); reading and mining do not.
"""
