from django.contrib.admin import AdminSite


class GateAdminSite(AdminSite):
    """The place for audit history: everything here is to be read, nothing to be changed."""

    site_header = "crpbot gate: audit history"
    site_title = "crpbot gate"
    index_title = "What was live, why, and who said so"
    enable_nav_sidebar = False  # the history needs the width
