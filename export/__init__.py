"""From a trained supernet to a bundle of small static files, and the runner that serves them."""
