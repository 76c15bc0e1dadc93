"""Trained models behind HTTP: admission, continuous batching, OpenAI's API and EIR's. Imports api and below."""
