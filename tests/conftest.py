from hypothesis import settings

# How long an example takes says something about the machine and what else it does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
