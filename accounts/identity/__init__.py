"""Who somebody is: sessions, second factors, single sign-on, and which accounts belong to one person."""
