from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from training.api.lines import Lines, describe_recipes
from training.management.settings_options import add_setting_options, read_settings
from training.models import Line
from training.services import lines


class Command(ActingCommand):
    help = "List the lines or the recipes, or create a line: a recipe, and the settings that its launches start from."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "create", "recipes"], nargs="?", default="list")
        parser.add_argument("name", nargs="?", default="", help="small letters, digits and underscores")
        parser.add_argument("--description", default="")
        parser.add_argument("--recipe", default="", help="without one the line holds imported models only")
        parser.add_argument("--reason", default="", help="recorded in the audit history")
        add_setting_options(parser)

    def answer(self, **options: Any) -> Any:
        if options["do"] == "recipes":
            return describe_recipes()
        if options["do"] == "create":
            lines.create_line(
                options["name"],
                description=options["description"],
                recipe=options["recipe"],
                defaults=read_settings(options),
                actor=self.actor(options),
                reason=options["reason"],
            )
        return [dict(line) for line in Lines.Output(Line.objects.all(), many=True).data]

    def format_answer(self, answer: Any) -> str:
        if isinstance(answer, dict):
            return "\n".join(map(_format_recipe, answer["recipes"]))
        return "\n".join(map(_format, answer))


def _format_recipe(recipe: dict[str, Any]) -> str:
    settings = ", ".join(f"{setting['name']} {setting['default']}" for setting in recipe["settings"])
    about = recipe["problem"] or settings or "no settings"
    return f"{recipe['name']:<32} {'; '.join(filter(None, (recipe['package'], about)))}"


def _format(line: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in line["defaults"].items())
    recipe = f"recipe {line['recipe']}" if line["recipe"] else "imported models only"
    parts = filter(None, (recipe, settings, line["description"]))
    return f"{line['name']:<32} {'; '.join(parts)}"
