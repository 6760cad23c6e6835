from deploy.management.decisions import build_command

Command = build_command("cancel")
