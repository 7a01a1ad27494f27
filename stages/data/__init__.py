"""The images: CIFAR-10's archive, and a stand-in drawn by code."""
