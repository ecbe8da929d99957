"""Command lines that name a run: --config=FILE:ARGUMENT, --config.KEY=VALUE and a command's own.

In flows a command line, out its `Config` and options; whatever is wrong is one line on stderr and
exit code 2. Reading is ml_collections' (notes jax B8); what it would do late, silently or with a
traceback is looked for before.
"""

import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from nkjax import config as configs
from nkjax import typed
from nkjax.config import BadConfig, Config

OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)


class Option(NamedTuple):
    """An option of a command: type and meaning are those of its default; None: must be given."""

    default: str | int | bool | None
    help: str


class BadUsage(Exception):
    """A command line that cannot be used, in one line."""


def parse(
    argv: Sequence[str], about: str, options: Mapping[str, Option], kind: type = Config
) -> tuple:
    """Read a command line, without the program's name: the run, and the options' values by name.

    about: what --help says first; kind: Config or PriorConfig. Leaves by SystemExit: 0 after
    --help, 2 after a line on stderr.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(_help(about, options, kind))
        raise SystemExit(0)
    try:
        return _parse(list(argv), options, kind)
    except (BadUsage, BadConfig) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _parse(argv, options, kind):
    argv = _check_overrides(argv, kind)
    file = _config_file(argv, kind)
    try:
        values, unused = _read(argv, options)
    except (Exception, SystemExit) as error:  # a config is a program: anything may go wrong in it
        raise BadUsage(_what_went_wrong(error, file, options, kind)) from None
    config = configs.from_config_dict(values.config, f"--config={file}", kind)
    if unused:
        raise BadUsage(f"{unused[0]!r} belongs to no option; see --help")
    given = {name: values[name].value for name in options}
    missing = [n for n, value in given.items() if options[n].default is None and not value]
    if missing:
        raise BadUsage(f"--{missing[0]} is missing: {options[missing[0]].help}")
    return config, given


def _read(argv, options):
    """Return absl's values of a command line, and the words that belong to no option."""
    values, argv = flags.FlagValues(), ["command", *argv]
    defines = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer}
    for name, option in options.items():
        define = defines.get(type(option.default), flags.DEFINE_string)
        define(name, option.default, option.help, flag_values=values)
    sys.modules.pop("config_config", None)  # of an earlier file, in which the next would be run
    logging.disable(logging.WARNING)  # that get_config gave None is said below, and as an error
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        unused = values(argv)[1:]
        hasattr(values.config, "keys")  # an OSError in a config is raised at the first touch
    finally:
        logging.disable(logging.NOTSET)
    return values, unused


def _check_overrides(argv: list[str], kind: type) -> list[str]:
    """Return the arguments with each override as one word and whole numbers as absl reads them.

    Raises BadUsage for an override of no setting, or of a section as a whole.
    """
    kinds, sections = typed.kinds(kind), typed.sections(kind)
    checked, rest = [], iter(argv)
    for word in rest:
        match = OVERRIDE.fullmatch(word)
        if not match:
            checked.append(word)
            continue
        negated, key, value = match.groups()
        if key in sections:
            example = next(known for known in kinds if known.startswith(f"{key}."))
            raise BadUsage(
                f"--config.{key} would replace all of it, and what is not named would be gone: "
                f"set its keys one by one, such as --config.{example}=..."
            )
        if key not in kinds:
            raise BadUsage(f"--config.{key} is no setting{typed.nearest(kind, key)}")
        if value is None and kinds[key] is not bool:
            value = next(rest, None)
            if value is None:
                raise BadUsage(f"--config.{key} has no value: write --config.{key}=...")
        if kinds[key] is int:
            value = _whole(key, value)
        word = f"--{negated or ''}config.{key}"
        checked.append(word if value is None else f"{word}={value}")
    return checked


def _whole(key: str, text: str) -> str:
    """Spell a whole number in digits: '1e3' is '1000'. Raises BadUsage for other than that."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    # Compared before it is converted: the digits of 1e999999999 would fill the memory.
    if not (number.is_finite() and abs(number.adjusted()) < 19 and number == int(number)):
        raise BadUsage(f"--config.{key}={text}: want {typed.in_words(int)}")
    return str(int(number))


def _config_file(argv: list[str], kind: type) -> str:
    """Return the value of --config, a file that is there. Raises BadUsage."""
    places = [i for i, word in enumerate(argv) if re.fullmatch(r"--?config(=.*)?", word, re.DOTALL)]
    if len(places) != 1:
        how_often = "is given twice" if places else "is missing"
        raise BadUsage(f"--config {how_often}: name one file, --config={kind.EXAMPLE}")
    place = places[0]
    early = [word for word in argv[:place] if OVERRIDE.fullmatch(word)]
    if early:
        raise BadUsage(f"{early[0]} stands before --config: name the file first, then change it")
    _, given, value = argv[place].partition("=")
    value = value if given else "".join(argv[place + 1 : place + 2])
    path = value.partition(":")[0]
    if not Path(path).is_file():
        raise BadUsage(
            f"--config={value}: there is no file {path!r}; those at hand are in configs/"
        )
    return value


def _what_went_wrong(error: BaseException, file: str, options, kind: type) -> str:
    """Return one line for what absl, ml_collections or the config file itself raised."""
    path, chain = file.partition(":")[0], [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    # ml_collections wraps what a config raises, so look for what came out of the file.
    for raised in chain:
        lines = [f.lineno for f in traceback.extract_tb(raised.__traceback__) if f.filename == path]
        if isinstance(raised, SyntaxError) and raised.filename == path:
            lines = [raised.lineno]
        if lines and isinstance(raised, BadConfig):
            return f"--config={file}: {raised}"
        if lines:
            what = f"{type(raised).__name__}: {raised}"
            return f"--config={file} failed ({path}, line {lines[-1]}): {what}"
    if not isinstance(error, flags.Error):
        return f"--config={file} failed: {error!r}"
    flag = str(error).partition(": ")[0].removeprefix("flag ")
    name = flag.partition("=")[0].removeprefix("--")
    if name == "config":
        return f"--config={file} failed: {chain[-1]}"
    kinds = {f"config.{key}": of_key for key, of_key in typed.kinds(kind).items()}
    kinds |= {option: type(options[option].default) for option in options}
    return f"{flag}: want {typed.in_words(kinds[name])}" if name in kinds else str(error)


def _help(about: str, options: Mapping[str, Option], kind: type) -> str:
    plain = configs.to_config_dict(kind()).to_dict()
    rows = ["  --config=FILE[:ARGUMENT]  a file of configs/ and what its get_config is given"]
    rows += [f"  --{name}{_example(o)}  {o.help}" for name, o in options.items()]
    keys = textwrap.fill(
        " ".join(f"{key}={_default(plain, key)}" for key in typed.kinds(kind)), 95,
        initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False,
    )  # fmt: skip
    return (
        f"{about}\n\nOptions:\n" + "\n".join(rows) + "\n  --config.KEY=VALUE  changes one setting, "
        "after --config. The keys, with what holds where\n  neither file nor command line says "
        f"otherwise ({_source(kind)} says what each means):\n{keys}"
    )


def _source(kind: type) -> str:
    return f"{kind.__module__.replace('.', '/')}.py"


def _example(option: Option) -> str:
    return "" if option.default is False else f"={option.default or 'VALUE'}"


def _default(plain: dict, key: str) -> str:
    for part in key.split("."):
        plain = plain[part]
    if isinstance(plain, tuple):
        return ",".join(f"{item:.4g}" for item in plain)
    return repr(plain) if plain == "" else str(plain)
