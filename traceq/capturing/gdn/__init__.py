"""The GatedDeltaNet workload: transformers' own Qwen3.5 code with random weights, in variants.

``settings`` says how large, ``variants`` which change to the layer's code (a new one is one
function there, or in a file of the user's), ``source`` how such a change is made, ``model`` builds
the model, ``workload`` runs and captures it. The first three load without torch.
"""
