"""Without an address the book shows no link that would lead nowhere.

While ``repository.url`` in ``_config.yml`` is the placeholder that a new copy starts with, the
buttons that open a page's source, its issues or Colab are left out.
"""

PLACEHOLDER = "/OWNER/"
BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button")


def hide_buttons(app, config):
    options = config.html_theme_options
    if PLACEHOLDER in f"{options.get('repository_url', '')}/":
        launch = {**options.get("launch_buttons", {}), "colab_url": ""}
        config.html_theme_options = {
            **options,
            **dict.fromkeys(BUTTONS, False),
            "launch_buttons": launch,
            "repository_url": "",
        }


def setup(app):
    app.connect("config-inited", hide_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
