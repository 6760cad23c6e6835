from deploy.management.decisions import DecisionCommand
from deploy.rules import Action


class Command(DecisionCommand):
    action = Action.DECLINE
