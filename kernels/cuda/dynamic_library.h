// A library that is looked up when it is needed, not linked: this one builds without its headers and says in words when it is missing.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

namespace arbor {

class DynamicLibrary {
public:
  // The first of `places` that opens, the path that the environment names before them. It is opened once and stays.
  DynamicLibrary(const char *variable, std::vector<std::string> places) {
    if (const char *named = std::getenv(variable)) places.insert(places.begin(), named);
    for (const std::string &place : places)
      if ((handle_ = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL))) return;
  }

  explicit operator bool() const { return handle_ != nullptr; }

  // Sets a pointer to a function; the first name that there is not is kept.
  template <class Entry> DynamicLibrary &find(Entry &entry, const char *name) {
    entry = reinterpret_cast<Entry>(dlsym(handle_, name));
    if (!entry && missing_.empty()) missing_ = name;
    return *this;
  }

  const std::string &missing() const { return missing_; }

private:
  void *handle_ = nullptr;
  std::string missing_;
};

} // namespace arbor
