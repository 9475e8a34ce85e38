from hypothesis import settings

# the same examples every time, and no deadline: how long one takes says nothing on a shared machine
settings.register_profile("laws", max_examples=15, deadline=None, derandomize=True)
settings.load_profile("laws")
