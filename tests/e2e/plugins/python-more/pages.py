"""What the pages of packages show, which others wrote. No task is here: it is imported where it is needed."""

import sqlparse
from bs4 import BeautifulSoup
from lark import Lark
from markdown_it import MarkdownIt

HELLO = Lark('''start: WORD "," WORD "!"

            %import common.WORD   // imports from terminal library
            %ignore " "           // Disregard spaces in text
         ''')

SOUP = BeautifulSoup("<p>Some<b>bad<i>HTML", "html.parser")

#: The examples, by a name.
PAGES = {
    "beautifulsoup4": lambda: SOUP.prettify(),
    "beautifulsoup4, find": lambda: [SOUP.find(string="bad"), str(SOUP.i)],
    "lark": lambda: [str(token) for token in HELLO.parse("Hello, World!").children],
    "markdown-it-py": lambda: MarkdownIt().render("# Example\n> markdown *input*\n"),
    "sqlparse.split": lambda: sqlparse.split("select * from foo; select * from bar;"),
    "sqlparse.format": lambda: sqlparse.format(
        "select id,name from users where active=1", reindent=True, keyword_case="upper"
    ),
}
