"""The deck, the article and the notebooks, made from the steps and their recorded runs: `python -m slides.build`."""
