"""Random changes of training images, each a function of (seed, epoch, place)."""
