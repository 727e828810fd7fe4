"""The nouns of the platform: frozen dataclasses, standard library only, no input or output."""
