-- Baskets.

local M = {}

-- The most things.
M.LIMIT = 10

--- Adds.
-- Two numbers.
function M.add(a, b)
  return a + b
end

function M:put(thing)
  local inner = 1
  return self:add(thing)
end

local function helper(x) return M.add(x, 1) end

M.sub = function(a) return helper(a) end

local api = { run = function() end, n = 1 }

function everywhere() string.format("x") end

return M
