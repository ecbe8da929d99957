"""Runs as data: each file has get_config(argument) -> ConfigDict, for scripts/train.py --config."""
