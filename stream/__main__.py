"""`python -m stream`, the same as `depthstream`."""

from stream.cli.main import main

if __name__ == "__main__":
    main()
