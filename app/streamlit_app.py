"""What `streamlit run app` starts: the pages, and the routes that feed their charts."""

from starlette.middleware import Middleware
from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App
from ui import live
from ui.owner import Owner

# Before `st.navigation` has run once, Streamlit takes a folder called pages/ for its older kind of app and would run a page without main.py.
PagesManager.uses_pages_directory = False

app = App("main.py", routes=live.routes(), middleware=[Middleware(Owner)])
