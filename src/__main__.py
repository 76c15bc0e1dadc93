"""`python src MODE …` in a checkout is `cold-dif-model MODE …`."""

from diffusion.__main__ import command

if __name__ == "__main__":
    command()
