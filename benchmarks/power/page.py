def write(a, b):
    pass


def summary(a):
    return ""
