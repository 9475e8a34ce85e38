"""The nodes and what they are made of; torch and ComfyUI are all that is imported."""
