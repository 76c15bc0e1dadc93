"""The command lines, one file a mode: its options, read and checked. Neither these files nor what they import import
torch, so that help and mistakes are answered at once. Imports laboratory, serving, streaming and the floors below.
"""
